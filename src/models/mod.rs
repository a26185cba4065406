//! Architectures as graph builders, one file and one table line each.
