//! `/api/v1/openapi.json`: the API described by OpenAPI 3.1, from the table of routes and the schemas of `schemas.txt`.
//!
//! A schema there is a line `Name: what it is` and below it a line for each field: its name, its type, and what it means. Types are
//! `int`, `number`, `string`, `bool`, `id` (64 hexadecimal digits), `hex`, `time` (Unix seconds), any type in `[]` for a list or in `{}`
//! for an object of them by name, or another schema's name. A `?` behind it says that it may be null, a `*` that it may be missing.

use std::collections::BTreeMap;

use rockpool_net::frame::http::Method;
use serde_json::{Map, Value, json};

use crate::http::error::{Code, reason};
use crate::http::packed::{Packed, packed};
use crate::http::routes::{Access, JSON, Kind, Param, Place, ROUTES, Route, Row};

static SCHEMAS: Packed = packed!("schemas.txt");

/// What holds for all of the API.
const ABOUT: &str = "Figures of this node, and what may be changed of it. Amounts are in satoshis, times in Unix seconds, rates in hashes \
                     per second, difficulties as Bitcoin counts them. HEAD is answered wherever GET is. Every refusal has a code that \
                     keeps its meaning; lists have at most 200 rows, and more are asked for by `offset` or from further down by `from`.";

/// The document.
pub fn document(version: &str) -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for row in ROUTES {
        paths.entry(row.path).or_default().insert(method(row.method).to_owned(), operation(row));
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Rockpool", "version": version, "description": ABOUT },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                "description": "`rockpool token` prints one." } },
        },
    })
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Post => "post",
        Method::Put => "put",
        Method::Delete => "delete",
        Method::Options => "options",
        Method::Get | Method::Head | Method::Other => "get",
    }
}

fn operation(row: &Row) -> Value {
    let name = format!("{:?}", row.route);
    let parameters: Vec<Value> = row.params.iter().map(parameter).collect();
    let mut operation = json!({ "operationId": name, "summary": row.summary, "parameters": parameters, "responses": responses(row) });
    if !row.body.is_empty() {
        operation["requestBody"] = json!({ "required": true, "content": content(JSON, row.body) });
    }
    match row.access {
        Access::Open => {}
        Access::Token | Access::User => operation["security"] = json!([{ "token": [] }]),
        Access::Loopback => operation["description"] = "Only who is on the same machine is heard.".into(),
    }
    operation
}

fn content(of: &str, schema: &str) -> Value {
    let schema = if schema.is_empty() { "string" } else { schema };
    json!({ of: { "schema": kind(schema) } })
}

/// What a request of this route may be refused with.
fn refusals(row: &Row) -> Vec<Code> {
    let access: &[Code] = match row.access {
        Access::Open => &[],
        Access::Token => &[Code::Unauthorized, Code::Forbidden],
        // Portfolios may be off; the keys of whoever signs tokens may not be there yet; the users may be too many.
        Access::User => &[Code::Unauthorized, Code::NotFound, Code::Busy, Code::Limit],
        Access::Loopback => &[Code::Forbidden],
    };
    let body: &[Code] = if row.body.is_empty() { &[] } else { &[Code::BadBody, Code::UnsupportedMedia] };
    [&[Code::BadParameter, Code::Misdirected], access, body, row.errors].concat()
}

fn responses(row: &Row) -> Value {
    let mut codes: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in refusals(row) {
        let names = codes.entry(code.status()).or_default();
        if !names.contains(&code.name()) {
            names.push(code.name());
        }
    }
    let mut told = json!({ row.status.to_string(): { "description": reason(row.status), "content": content(row.kind, row.schema) } });
    if row.route == Route::Health {
        told["503"] = json!({ "description": "miners are not served, and why", "content": content(row.kind, "") });
    }
    for (status, names) in codes {
        told[status.to_string()] = json!({ "description": names.join(" or "), "content": content(JSON, "Error") });
    }
    told
}

fn parameter(param: &Param) -> Value {
    let mut schema = match param.kind {
        Kind::Number { min, max, .. } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Id => kind("id"),
        Kind::Choice { of, .. } => json!({ "type": "string", "enum": of }),
        Kind::Text { bytes } => json!({ "type": "string", "minLength": 1, "maxLength": bytes }),
    };
    match param.kind {
        Kind::Number { default: Some(default), .. } => schema["default"] = default.into(),
        Kind::Choice { default, .. } if !default.is_empty() => schema["default"] = default.into(),
        _ => {}
    }
    let in_path = param.place == Place::Path;
    let help = if param.unit.is_empty() { param.help.to_owned() } else { format!("{} Unit: {}.", param.help, param.unit) };
    let place = if in_path { "path" } else { "query" };
    json!({ "name": param.name, "in": place, "required": in_path, "description": help, "schema": schema })
}

fn schemas() -> Map<String, Value> {
    let codes: Vec<&str> = Code::ALL.into_iter().map(Code::name).collect();
    let mut schemas = Map::new();
    schemas.insert("Code".into(), json!({ "type": "string", "enum": codes }));
    let mut name = "";
    for line in String::from_utf8_lossy(SCHEMAS.plain()).lines() {
        if let Some((of, help)) = line.split_once(": ").filter(|_| !line.starts_with(' ')) {
            name = of;
            let new = json!({ "type": "object", "description": help, "properties": {}, "required": [], "additionalProperties": false });
            schemas.insert(of.to_owned(), new);
            continue;
        }
        let mut words = line.trim_start().splitn(3, ' ');
        let (Some(field), Some(of), Some(schema)) = (words.next(), words.next(), schemas.get_mut(name)) else { continue };
        let mut property = kind(of.trim_end_matches('*'));
        if let Some(help) = words.next() {
            property["description"] = help.into();
        }
        schema["properties"][field] = property;
        if let Some(required) = schema["required"].as_array_mut().filter(|_| !of.ends_with('*')) {
            required.push(field.into());
        }
    }
    schemas
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// A type as JSON Schema has it.
fn kind(of: &str) -> Value {
    let within = |open, close| of.strip_prefix(open).and_then(|of: &str| of.strip_suffix(close));
    if let Some(of) = of.strip_suffix('?') {
        return json!({ "anyOf": [kind(of), { "type": "null" }] });
    }
    if let Some(of) = within('[', ']') {
        return json!({ "type": "array", "items": kind(of) });
    }
    if let Some(of) = within('{', '}') {
        return json!({ "type": "object", "additionalProperties": kind(of) });
    }
    match of {
        "int" => json!({ "type": "integer" }),
        "time" => json!({ "type": "integer", "format": "unix-time" }),
        "number" | "string" => json!({ "type": of }),
        "bool" => json!({ "type": "boolean" }),
        "id" => json!({ "type": "string", "pattern": "^[0-9a-fA-F]{64}$" }),
        "hex" => json!({ "type": "string", "pattern": "^([0-9a-f]{2})*$" }),
        schema => reference(schema),
    }
}

#[cfg(test)]
mod tests;
