//! By dimension.
