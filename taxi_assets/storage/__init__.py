"""Where data is stored: the lake, the warehouse, and the conversion of their rows to pandas."""
