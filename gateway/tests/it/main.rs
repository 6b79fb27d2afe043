//! The gateway over real sockets and, where it is about Redis, a real Redis.

mod admin;
mod audit_kinds;
mod audit_sync;
mod bench;
mod breakers;
mod claims;
mod cold;
mod commands;
mod connections;
mod cores;
mod end;
mod faults;
mod footprint;
mod http;
mod in_process;
mod kinds;
mod leases;
mod masters;
mod moving;
mod numbers;
mod one_silent;
mod parted;
mod paused;
mod process;
mod proxy;
#[path = "../redis_store/mod.rs"]
mod redis_store;
mod redis_tls;
mod redis_user;
mod refunds;
mod regions;
mod rewound;
mod secrets;
mod tls;
mod together;
mod undone;
