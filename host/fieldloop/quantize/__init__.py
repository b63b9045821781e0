"""Post-training quantisation: calibrated ranges, int8 weights, fixed-point factors."""
