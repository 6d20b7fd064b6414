//! The step loop and the embedding API.
