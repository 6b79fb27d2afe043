//! Every decision of Tidegate, pure.
#![no_std]
