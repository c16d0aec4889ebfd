"""The benchmark: mock upstream, load generator, comparators, measures. The manual is docs/operate/benchmark.md."""
