"""Task families turned into environments: `family` (what is to be solved), `single` and `vector` (Gymnasium's two interfaces)."""
