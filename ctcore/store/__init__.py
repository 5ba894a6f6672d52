"""The store: content by its digest, published whole or not at all."""
