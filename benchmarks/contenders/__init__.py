"""One module for each library and flavour; `benchmarks.registry` collects what they enter."""
