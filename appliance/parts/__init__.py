"""The services of a running appliance, one module each; app.py only puts them together."""
