//! Configuration files in JSON syntax: an object for each block type and label, or a list of such
//! where a block may come several times.

use serde_json::{Map, Value};

use super::{Call, Configuration, RESOURCES, SyntaxError};

pub(super) fn read(into: &mut Configuration, text: &str) -> Result<(), SyntaxError> {
    let value: Value = serde_json::from_str(text).map_err(|e| SyntaxError {
        line: Some(e.line()).filter(|line| *line > 0),
        rule: e.to_string(),
    })?;
    for top in bodies(&value) {
        for (kind, blocks) in top {
            read_blocks(into, kind, blocks);
        }
    }
    Ok(())
}

/// The bodies of blocks that have no more labels.
fn bodies(value: &Value) -> Vec<&Map<String, Value>> {
    match value {
        Value::Object(body) => vec![body],
        Value::Array(several) => several.iter().flat_map(bodies).collect(),
        _ => Vec::new(),
    }
}

/// The blocks below one label more.
fn labelled(value: &Value) -> Vec<(&String, &Value)> {
    bodies(value).into_iter().flatten().collect()
}

fn read_blocks(into: &mut Configuration, kind: &str, blocks: &Value) {
    match kind {
        "terraform" => {
            let required =
                bodies(blocks).into_iter().filter_map(|body| body.get("required_providers"));
            for (local, value) in required.flat_map(labelled) {
                match value {
                    Value::String(version) => into.require(local, None, Some(version.clone())),
                    value => into.require(
                        local,
                        string(value.get("source")),
                        string(value.get("version")),
                    ),
                }
            }
        }
        "provider" => {
            for (local, value) in labelled(blocks) {
                bodies(value)
                    .into_iter()
                    .for_each(|body| into.configure(local, string(body.get("version"))));
            }
        }
        "module" => {
            for (name, value) in labelled(blocks) {
                for body in bodies(value) {
                    let (source, version) =
                        (string(body.get("source")), string(body.get("version")));
                    into.call(Call { name: name.to_owned(), source, version, line: None });
                }
            }
        }
        "check" => {
            for (_, check) in labelled(blocks) {
                let data = bodies(check).into_iter().filter_map(|body| body.get("data"));
                data.for_each(|data| read_blocks(into, "data", data));
            }
        }
        kind if RESOURCES.contains(&kind) => {
            for (of, named) in labelled(blocks) {
                for (_, value) in labelled(named) {
                    for body in bodies(value) {
                        let provider = string(body.get("provider"));
                        into.resource(
                            of,
                            provider.as_deref().map(|text| text.trim_matches(['$', '{', '}', ' '])),
                        );
                    }
                }
            }
        }
        _ => {}
    }
}

/// The text of a string without interpolations.
fn string(value: Option<&Value>) -> Option<String> {
    value?.as_str().filter(|text| !text.contains("${") && !text.contains("%{")).map(str::to_owned)
}
