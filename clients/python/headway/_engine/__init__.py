"""What works in the background of a client: the engine's thread, its calls and reports, and its end.

Workers import nothing from here. Each client in another language has the same modules.
"""
