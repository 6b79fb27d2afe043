//! Owns everything that is HTTP: connections, bodies, routes, and how answers look. Decides nothing
//! and knows no store.
//!
//! hyper is used directly, through hyper-util's builder that takes HTTP/1 and HTTP/2 with prior
//! knowledge on one port: two listeners with a handful of paths need no router, and the limits and
//! timeouts of both protocols stay in sight.

pub mod admin;
pub mod answer;
mod bearer;
mod body;
mod breakers;
pub mod commands;
pub mod connection;
pub mod data;
pub mod handshake;
pub mod limits;
pub mod operate;
pub mod records;
mod shown;
