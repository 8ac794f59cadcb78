//! `numpy.random.default_rng`.
