"""The graph between every frontend and every backend: numpy only, NHWC, batch of one."""
