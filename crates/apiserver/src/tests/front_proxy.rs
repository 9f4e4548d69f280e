//! Front proxies, which ask on somebody's behalf: whom this server believes, and what others must know to believe it.

use serde_json::{Value, json};

use super::network::Served;
use crate::{Limits, RequestLimits};

#[tokio::test]
async fn a_front_proxy_is_believed_whom_it_asks_for() {
    let served = Served::with(Limits::default(), RequestLimits::default()).await;
    let (proxy, admin) = (served.pki.front_proxy_client().unwrap(), served.pki.admin().unwrap());
    let review = json!({ "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1" }).to_string();
    let ask = async |credential, headers: &str| {
        let head = format!(
            "POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{review}",
            review.len()
        );
        served.raw(credential, head.as_bytes()).await
    };
    let jane = "X-Remote-User: jane\r\nX-Remote-Group: developers\r\nX-Remote-Extra-Scopes: all\r\n";
    let said = ask(Some(&proxy), jane).await;
    assert!(said.starts_with("HTTP/1.1 201"), "{said}");
    let user: Value = serde_json::from_str(&said[said.find('{').unwrap()..said.rfind('}').unwrap() + 1]).unwrap();
    let user = &user["status"]["userInfo"];
    assert_eq!(user["username"], "jane");
    assert_eq!(user["groups"], json!(["developers", "system:authenticated"]));
    assert_eq!(user["extra"]["scopes"], json!(["all"]));
    // It is nobody itself, and nobody else is believed: not even somebody with a certificate of the same authority.
    assert!(ask(Some(&proxy), "").await.starts_with("HTTP/1.1 401"));
    let other = served.pki.front_proxy_client_named("front-proxy-other").unwrap();
    assert!(ask(Some(&other), jane).await.starts_with("HTTP/1.1 401"));
    let said = ask(Some(&admin), jane).await;
    assert!(said.contains("kubernetes-admin") && !said.contains("jane"), "{said}");
}

#[tokio::test]
async fn what_other_servers_must_know_is_published() {
    let served = Served::with(Limits::default(), RequestLimits::default()).await;
    served.fixture.server.publish_authentication(&served.pki).await.unwrap();
    let path = "GET /api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let object = served.fixture.json(path, 200, &Value::Null).await;
    let data = &object["data"];
    assert_eq!(data["client-ca-file"], served.pki.authority_pem());
    assert_eq!(data["requestheader-client-ca-file"], served.pki.front_proxy_authority_pem());
    assert_eq!(data["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    assert_eq!(data["requestheader-username-headers"], "[\"X-Remote-User\"]");
    served.fixture.server.publish_authentication(&served.pki).await.unwrap();
    let again = served.fixture.json(path, 200, &Value::Null).await;
    assert_eq!(object["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"]);
}
