//! Resource and custom metrics.
