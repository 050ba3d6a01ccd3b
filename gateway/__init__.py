"""The composition root: settings, runtime, HTTP endpoint and command line."""
