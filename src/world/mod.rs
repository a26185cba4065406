//! The demo's camera-trap world, drawn by code.
