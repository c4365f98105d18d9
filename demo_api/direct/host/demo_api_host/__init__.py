"""The program of the model's own process: it loads a model, and answers what the server asks.

It runs in the demo home's interpreter, which is seldom the server's: Python 3.8+, the standard library, and what the
model needs. Nothing here imports anything else of demo_api.
"""
