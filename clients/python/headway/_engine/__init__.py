"""The background work of a client: the thread of the engine, its calls and reports, and the end of the process.

Workers import nothing from here. Each client in another language has the same modules.
"""
