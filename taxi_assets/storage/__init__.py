"""Where things stand: the lake, the warehouse, and the IO managers on top of them."""
