//! `coracle secrets rotate`.

use std::process::ExitCode;

use anyhow::Result;
use cluster::Profile;
use serde_json::Value;

use super::{ask, require_running};
use crate::cli::SecretsCommand;
use crate::output;

/// Where a rotation is asked for.
const PATH: &str = "/apis/encryption.coracle.dev/v1/keyrotations";

pub(crate) fn run(profile: &Profile, command: &SecretsCommand) -> Result<ExitCode> {
    require_running(profile)?;
    let SecretsCommand::Rotate = command;
    let rotation = ask(profile, async |client| {
        let request = http::Request::post(PATH).body(Vec::new())?;
        Ok(client.request::<Value>(request).await?)
    })?;
    output::note(text(&rotation["status"]));
    Ok(ExitCode::SUCCESS)
}

fn text(status: &Value) -> String {
    if status["underWay"] == true {
        return "Everything is being encrypted again. That goes on by itself; its end is noted in: coracle logs"
            .to_owned();
    }
    let objects = status["objects"].as_u64().unwrap_or(0);
    match status["key"].as_str() {
        Some(key) => format!("{objects} objects are now encrypted with the new key {key}; the old key is gone."),
        None => format!(
            "{objects} objects are now encrypted as the given EncryptionConfiguration says. Other keys than its first ones are not needed any more, nor is encryption-key.yaml."
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whose_key_it_is_makes_a_difference() {
        let local = text(&json!({ "key": "key2", "objects": 7 }));
        assert_eq!(local, "7 objects are now encrypted with the new key key2; the old key is gone.");
        assert!(text(&json!({ "underWay": true })).starts_with("Everything is being encrypted"));
        assert!(text(&json!({ "key": null, "objects": 0 })).starts_with("0 objects are now encrypted as the given"));
    }
}
