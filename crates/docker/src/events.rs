//! Docker's event stream, narrowed to this profile's containers.

use std::collections::HashMap;
use std::future::ready;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use runtime::{Error, Event, EventKind, EventStream, labels};

use crate::{Docker, inspect};

/// Events from the moment of the call on: Docker keeps the last few and is asked for those since then, so nothing is lost
/// before the subscription takes effect.
pub(crate) fn subscribe(docker: &Docker) -> EventStream {
    let since = Timestamp::now();
    let label = format!("{}={}", labels::PROFILE, docker.profile());
    let filters = HashMap::from([
        ("type", vec!["container".to_owned()]),
        ("label", vec![label]),
        ("event", ["start", "die", "oom", "destroy"].map(str::to_owned).to_vec()),
    ]);
    let options = EventsOptionsBuilder::new()
        .since(&format!("{}.{:09}", since.as_second(), since.subsec_nanosecond()))
        .filters(&filters)
        .build();
    let lost = Error::Unavailable(format!("lost the Docker daemon at {}: its event stream ended", docker.host()));
    let docker = docker.clone();
    docker
        .client()
        .events(Some(options))
        .filter_map(move |message| {
            ready(match message {
                Ok(message) => {
                    let own = docker.is_own(message.actor.as_ref().and_then(|actor| actor.attributes.as_ref()));
                    own.then(|| event(message)).flatten().map(Ok)
                }
                Err(error) => Some(Err(docker.error(&error))),
            })
        })
        .chain(stream::once(ready(Err(lost))))
        // Nothing comes after the first error.
        .scan(false, |failed, item| {
            let over = std::mem::replace(failed, item.is_err());
            ready((!over).then_some(item))
        })
        .boxed()
}

fn event(message: EventMessage) -> Option<Event> {
    let actor = message.actor?;
    let attributes = actor.attributes.unwrap_or_default();
    let kind = match message.action?.as_str() {
        "start" => EventKind::Started,
        "die" => {
            EventKind::Died { exit_code: attributes.get("exitCode").and_then(|code| code.parse().ok()).unwrap_or(-1) }
        }
        "oom" => EventKind::OutOfMemory,
        "destroy" => EventKind::Removed,
        _ => return None,
    };
    let is_container = attributes.get(labels::TYPE).map(String::as_str) == Some(labels::TYPE_CONTAINER);
    Some(Event {
        id: actor.id?,
        container: is_container.then(|| inspect::label(&attributes, labels::CONTAINER_NAME)),
        pod: inspect::pod(&attributes),
        kind,
        time: message.time_nano.and_then(|nanos| Timestamp::from_nanosecond(nanos.into()).ok()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn message(action: &str, attributes: &[(&str, &str)]) -> EventMessage {
        EventMessage {
            action: Some(action.to_owned()),
            actor: Some(EventActor {
                id: Some("c1".to_owned()),
                attributes: Some(
                    attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
                ),
            }),
            time_nano: Some(1_000_000_001),
            ..EventMessage::default()
        }
    }

    #[test]
    fn events() {
        let container = [
            (labels::TYPE, labels::TYPE_CONTAINER),
            (labels::CONTAINER_NAME, "web"),
            (labels::POD_UID, "u1"),
            ("exitCode", "137"),
        ];
        let died = event(message("die", &container)).unwrap();
        assert_eq!(died.kind, EventKind::Died { exit_code: 137 });
        assert_eq!(died.container.as_deref(), Some("web"));
        assert_eq!(died.pod.uid, "u1");
        let sandbox = [(labels::TYPE, labels::TYPE_SANDBOX), (labels::CONTAINER_NAME, "POD")];
        let started = event(message("start", &sandbox)).unwrap();
        assert_eq!((started.kind, started.container), (EventKind::Started, None));
        assert!(event(message("exec_create: ls", &container)).is_none());
        assert!(event(EventMessage::default()).is_none());
    }

    /// A daemon that tells one event and goes away.
    #[tokio::test]
    async fn the_end_of_the_daemon_is_the_end_of_the_stream() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            drop(listener);
            let (mut buffer, mut requests) = ([0; 4096], Vec::new());
            // Both come over the same connection.
            for answer in [
                "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK".to_owned(),
                format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}\n",
                    r#"{"Type":"container","Action":"start","Actor":{"ID":"c1","Attributes":{}},"timeNano":1}"#
                ),
            ] {
                let length = connection.read(&mut buffer).await.unwrap();
                requests.extend_from_slice(&buffer[..length]);
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
            let requests = String::from_utf8(requests).unwrap();
            assert!(requests.contains("GET /v1.41/events?"), "{requests}");
        });
        let mut config = crate::Config::new("p");
        config.host = Some(format!("unix://{}", path.display()));
        let docker = Docker::connect(config).await.unwrap();
        let mut events = subscribe(&docker);
        assert_eq!(events.next().await.unwrap().unwrap().id, "c1");
        let lost = events.next().await.unwrap().unwrap_err();
        assert!(lost.is_unavailable(), "{lost:?}");
        assert!(events.next().await.is_none());
    }
}
