//! MT19937 under Python's `random` and numpy's legacy functions.
