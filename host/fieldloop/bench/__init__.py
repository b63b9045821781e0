"""What a model costs on a board, measured: executed instructions, RAM, flash."""
