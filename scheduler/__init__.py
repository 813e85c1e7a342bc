"""The broker: for every model call, which backend, at which precision, when and for what money; no finance."""
