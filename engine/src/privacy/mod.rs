//! Masks payload values and secrets.
