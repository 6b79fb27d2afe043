//! Imports for header maps. It must not know when a map is available; the stream says so.

use std::cell::RefMut;

use wasmtime::Linker;

use super::codes::{AbiVersion, MapType, Status};
use super::guest::{Fail, Guest, HostResult};
use super::link::host_fn;
use super::pairs;
use crate::host::headers::HeaderMap;
use crate::host::inline::{self, Kind};
use crate::host::vm_state::VmState;

pub(crate) fn register(linker: &mut Linker<VmState>, version: AbiVersion) -> wasmtime::Result<()> {
    host_fn!(linker, "proxy_get_header_map_size", size, (map: u32, out: u32));
    host_fn!(linker, "proxy_get_header_map_pairs", get_pairs, (map: u32, out: u32, out_len: u32));
    host_fn!(linker, "proxy_set_header_map_pairs", set_pairs, (map: u32, ptr: u32, len: u32));
    match version {
        AbiVersion::V0_1_0 => {
            host_fn!(linker, "proxy_get_header_map_value", get_value_or_empty, (map: u32, key: u32, key_len: u32, out: u32, out_len: u32));
        }
        AbiVersion::V0_2_0 | AbiVersion::V0_2_1 => {
            host_fn!(linker, "proxy_get_header_map_value", get_value, (map: u32, key: u32, key_len: u32, out: u32, out_len: u32));
        }
    }
    host_fn!(linker, "proxy_add_header_map_value", add_value, (map: u32, key: u32, key_len: u32, value: u32, value_len: u32));
    host_fn!(linker, "proxy_replace_header_map_value", replace_value, (map: u32, key: u32, key_len: u32, value: u32, value_len: u32));
    host_fn!(linker, "proxy_remove_header_map_value", remove_value, (map: u32, key: u32, key_len: u32));
    Ok(())
}

fn map_type(map: u32) -> HostResult<MapType> {
    Ok(MapType::from_code(map).ok_or(Status::BadArgument)?)
}

fn writable<'a>(guest: &'a mut Guest<'_, '_>, map: u32) -> HostResult<RefMut<'a, HeaderMap>> {
    let map = map_type(map)?;
    Ok(guest.state_mut().map_mut(map).ok_or(Status::BadArgument)?)
}

/// The size in bytes, and only of maps that could be written: so Envoy does it.
fn size(guest: &mut Guest<'_, '_>, map: u32, out: u32) -> HostResult {
    guest.note(|| format!("map {map}"));
    let bytes = writable(guest, map)?.byte_size();
    guest.write_u32(out, u32::try_from(bytes).unwrap_or(u32::MAX))
}

/// Which list of single headers holds for a map; trailers have none.
fn kind(map: MapType) -> Option<Kind> {
    match map {
        MapType::RequestHeaders => Some(Kind::Request),
        MapType::ResponseHeaders | MapType::CalloutHeaders => Some(Kind::Response),
        _ => None,
    }
}

/// A map that is not available reads as an empty one.
fn get_pairs(guest: &mut Guest<'_, '_>, map: u32, out: u32, out_len: u32) -> HostResult {
    let map = map_type(map)?;
    guest.note(|| format!("{map:?}"));
    let encoded =
        guest.state().map(map).map(|headers| pairs::encode(headers.pairs())).unwrap_or_default();
    guest.give(&encoded, out, out_len)
}

fn set_pairs(guest: &mut Guest<'_, '_>, map: u32, ptr: u32, len: u32) -> HostResult {
    let decoded = pairs::decode(&guest.read(ptr, len)?);
    guest.note(|| format!("map {map}, {} pairs", decoded.len()));
    *writable(guest, map)? = match kind(map_type(map)?) {
        Some(kind) => inline::joined(kind, &decoded),
        None => HeaderMap::from_pairs(decoded),
    };
    Ok(())
}

fn get_value(
    guest: &mut Guest<'_, '_>,
    map: u32,
    key: u32,
    key_len: u32,
    out: u32,
    out_len: u32,
) -> HostResult {
    let map = map_type(map)?;
    let key = guest.read(key, key_len)?;
    guest.note(|| format!("{map:?} {}", String::from_utf8_lossy(&key)));
    let state = guest.state();
    let value = state
        .map(map)
        .ok_or(state.status_of_missing_map())?
        .first(&inline::canonical(kind(map), &key))
        .ok_or(Status::NotFound)?
        .to_vec();
    guest.give(&value, out, out_len)
}

/// In ABI 0.1.0 a missing header is an empty one.
fn get_value_or_empty(
    guest: &mut Guest<'_, '_>,
    map: u32,
    key: u32,
    key_len: u32,
    out: u32,
    out_len: u32,
) -> HostResult {
    match get_value(guest, map, key, key_len, out, out_len) {
        Err(Fail::Status(Status::NotFound)) => guest.give(&[], out, out_len),
        result => result,
    }
}

fn add_value(
    guest: &mut Guest<'_, '_>,
    map: u32,
    key: u32,
    key_len: u32,
    value: u32,
    value_len: u32,
) -> HostResult {
    let (key, value) = key_and_value(guest, map, key, key_len, value, value_len)?;
    let kind = kind(map_type(map)?);
    inline::add(&mut *writable(guest, map)?, kind, &key, value);
    Ok(())
}

fn replace_value(
    guest: &mut Guest<'_, '_>,
    map: u32,
    key: u32,
    key_len: u32,
    value: u32,
    value_len: u32,
) -> HostResult {
    let (key, value) = key_and_value(guest, map, key, key_len, value, value_len)?;
    let kind = kind(map_type(map)?);
    writable(guest, map)?.replace(&inline::canonical(kind, &key), value);
    Ok(())
}

fn remove_value(guest: &mut Guest<'_, '_>, map: u32, key: u32, key_len: u32) -> HostResult {
    let key = guest.read(key, key_len)?;
    guest.note(|| format!("map {map} {}", String::from_utf8_lossy(&key)));
    let kind = kind(map_type(map)?);
    writable(guest, map)?.remove(&inline::canonical(kind, &key));
    Ok(())
}

fn key_and_value(
    guest: &mut Guest<'_, '_>,
    map: u32,
    key: u32,
    key_len: u32,
    value: u32,
    value_len: u32,
) -> HostResult<(Vec<u8>, Vec<u8>)> {
    let key = guest.read(key, key_len)?;
    let value = guest.read(value, value_len)?;
    guest.note(|| {
        format!("map {map} {}: {}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value))
    });
    Ok((key, value))
}
