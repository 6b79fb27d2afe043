//! host-sim
