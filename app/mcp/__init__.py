"""Tools for agents, by the Model Context Protocol: their table, and the doors to them."""
