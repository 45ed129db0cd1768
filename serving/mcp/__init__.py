"""MCP: five read tools for agents, at `/mcp` and over standard input and output.

`tools` is what they do, by the routes' own functions, `bounds` how long they answer; `protocol` speaks MCP through the
official SDK and is imported when the first agent asks, for the SDK takes longer to load than much of the service;
`endpoint` lets agents in, `refusals` tells the others why not.
"""
