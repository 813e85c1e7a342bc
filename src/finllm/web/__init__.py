"""The desk in a browser: pages to read, sign and send back, and the session as forms. See docs/serve.md."""
