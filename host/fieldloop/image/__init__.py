"""The .flm model image: its layout, a writer, and a reader that trusts no byte."""
