"""The demo: from PyTorch to a board that learns in the field, survives a power cut and reports."""
