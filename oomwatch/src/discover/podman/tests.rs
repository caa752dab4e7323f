use super::*;
use crate::discover::{
    docker::tests::{Fake, seen},
    source::Sighting,
};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn listed(name: &str, is_infra: bool) -> String {
    format!(
        r#"{{"AutoRemove":false,"Command":["sh"],"Created":"2026-08-22T10:23:45Z","CIDFile":"","Exited":false,"ExitedAt":-62135596800,"ExitCode":0,"Id":"{ID}","Image":"localhost/hog:latest","ImageID":"1","IsInfra":{is_infra},"Labels":null,"Mounts":[],"Names":["{name}"],"Namespaces":{{}},"Networks":[],"Pid":0,"Pod":"9","PodName":"shop","Ports":null,"Restarts":0,"Size":null,"StartedAt":1787394225,"State":"running","Status":""}}"#
    )
}

#[tokio::test]
async fn pods_have_names() {
    let fake = Fake::start(
        format!("[{}]", listed("web", false)),
        format!("[{}]", listed("shop-infra", true)),
    );
    let (mut sightings, _following) = fake.follow(RuntimeApi::Podman);
    let (id, details) = seen(&mut sightings).await;
    assert_eq!(id, ID);
    assert_eq!(details.name.as_deref(), Some("web"));
    assert_eq!(details.pod.as_deref(), Some("shop"));
    assert_eq!(details.image.as_deref(), Some("localhost/hog:latest"));
    assert_eq!(details.runtime.as_deref(), Some("podman"));
    assert_eq!(details.is_sandbox, Some(false));
    assert!(matches!(
        sightings.recv().await,
        Some(Sighting::Listed { .. })
    ));
    let event = |action: &str| {
        format!(
            r#"{{"status":"{action}","id":"{ID}","Type":"container","Action":"{action}","Actor":{{"ID":"{ID}","Attributes":{{"name":"web"}}}},"scope":"local","time":1,"timeNano":2,"HealthStatus":""}}"#
        )
    };
    fake.tell(&event("init"));
    let (_, details) = seen(&mut sightings).await;
    assert_eq!(details.is_sandbox, Some(true));
    fake.tell(&event("remove"));
    assert!(matches!(
        sightings.recv().await,
        Some(Sighting::Gone { .. })
    ));
}
