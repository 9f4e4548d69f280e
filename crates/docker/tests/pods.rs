//! Sandboxes and containers on a real daemon. Needs Docker and /bin/busybox (Debian's busybox-static).

mod support;

use std::net::{IpAddr, TcpListener};
use std::time::Duration;

use coracle_docker::{Config, Docker};
use futures::StreamExt;
use runtime::{
    ContainerConfig, ContainerState, Error, EventKind, Mount, PortMapping, Propagation, Protocol, Resources, Runtime,
    SandboxConfig,
};
use support::{Fixture, eventually, with};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_pod_lives_is_adopted_and_goes() {
    with(async |fixture: Fixture| {
        let Fixture { docker, network, .. } = &fixture;
        let mut config = fixture.sandbox_config("web");
        config.annotations.insert("note".to_owned(), "x".to_owned());
        let sandbox = docker.run_sandbox(&config).await.unwrap();
        let Some(IpAddr::V4(ip)) = sandbox.ip() else { panic!("no address: {sandbox:?}") };
        assert!(network.subnet.contains(ip));

        let main = fixture.run_script(&sandbox, "main", "trap 'exit 3' TERM; sleep 1000 & wait").await;
        let done = fixture.run_script(&sandbox, "done", "true").await;
        fixture.exited(&done).await;

        // Another process, after a restart, finds the same from the labels.
        let adopted = Docker::connect(Config::new(docker.profile())).await.unwrap();
        for _ in 0..2 {
            let pods = adopted.pods().await.unwrap();
            let [found] = &pods[..] else { panic!("{pods:?}") };
            assert_eq!((&found.id, &found.ips, found.ready), (&sandbox.id, &sandbox.ips, true));
            assert_eq!((&found.pod, &found.annotations), (&sandbox.pod, &config.annotations));
            let names: Vec<_> = found.containers.iter().map(|container| &container.name[..]).collect();
            assert_eq!(names, ["main", "done"]);
            assert!(found.containers[0].state.is_running());
            assert!(found.containers[0].image_id.starts_with("docker://sha256:"));
            assert_eq!(found.containers[0].hash, "h1");
            match &found.containers[1].state {
                ContainerState::Exited { exit_code: 0, reason, started: Some(_), .. } => {
                    assert_eq!(reason.as_str(), "Completed");
                }
                other => panic!("{other:?}"),
            }
        }

        docker.stop_container(&main, MINUTE).await.unwrap();
        match docker.container(&main).await.unwrap().unwrap().state {
            ContainerState::Exited { exit_code: 3, reason, .. } => assert_eq!(reason.as_str(), "Error"),
            other => panic!("{other:?}"),
        }
        // All of it may be repeated.
        docker.stop_container(&main, MINUTE).await.unwrap();
        docker.stop_container(&main, Duration::ZERO).await.unwrap();
        for _ in 0..2 {
            docker.remove_container(&main).await.unwrap();
        }
        docker.stop_container(&main, MINUTE).await.unwrap();
        assert_eq!(docker.container(&main).await.unwrap(), None);
        for _ in 0..2 {
            docker.stop_sandbox(&sandbox.id).await.unwrap();
            assert!(!docker.pods().await.unwrap()[0].ready);
        }
        for _ in 0..2 {
            docker.remove_sandbox(&sandbox.id).await.unwrap();
            assert_eq!(docker.pods().await.unwrap(), []);
        }
    })
    .await;
}

#[tokio::test]
async fn stopping_a_sandbox_ends_what_runs_in_it() {
    with(async |fixture: Fixture| {
        let docker = &fixture.docker;
        let sandbox = fixture.sandbox("web").await;
        let id = fixture.run_script(&sandbox, "main", "sleep 1000").await;
        docker.stop_sandbox(&sandbox.id).await.unwrap();
        assert!(docker.container(&id).await.unwrap().unwrap().state.is_exited());
    })
    .await;
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    with(async |fixture: Fixture| {
        let docker = &fixture.docker;
        let sandbox = fixture.sandbox("web").await;
        let mut config = fixture.container_config(&sandbox, "missing", "");
        config.command = vec!["/no/such/program".to_owned()];
        let id = docker.create_container(&sandbox, &config).await.unwrap();
        match docker.start_container(&id).await {
            Err(Error::StartFailed { exit_code: 127, message }) => assert!(message.contains("no/such/program")),
            other => panic!("{other:?}"),
        }
        match docker.container(&id).await.unwrap().unwrap().state {
            ContainerState::Exited { exit_code: 127, reason, message, started: None, .. } => {
                assert_eq!(reason.as_str(), "ContainerCannotRun");
                assert!(message.contains("no/such/program"));
            }
            other => panic!("{other:?}"),
        }

        config = fixture.container_config(&sandbox, "image", "");
        config.image = "coracle-test/never-made:1".to_owned();
        let error = docker.create_container(&sandbox, &config).await.unwrap_err();
        assert!(matches!(error, Error::ImageNotFound { .. }), "{error:?}");

        config = fixture.container_config(&sandbox, "mount", "");
        config.mounts = vec![Mount {
            host_path: "/no/such/directory".into(),
            descriptor: false,
            container_path: "/data".into(),
            read_only: false,
            recursive_read_only: false,
            propagation: Propagation::Private,
        }];
        let error = docker.create_container(&sandbox, &config).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/directory"), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn running_out_of_memory_is_told() {
    with(async |fixture: Fixture| {
        let sandbox = fixture.sandbox("web").await;
        let config = ContainerConfig {
            resources: Resources::from_milli_cpu(None, None, Some(16 << 20)),
            ..fixture.container_config(&sandbox, "main", "exec tail /dev/zero")
        };
        let id = fixture.run(&sandbox, &config).await;
        match fixture.exited(&id).await {
            ContainerState::Exited { exit_code: 137, reason, .. } => assert_eq!(reason.as_str(), "OOMKilled"),
            other => panic!("{other:?}"),
        }
    })
    .await;
}

#[tokio::test]
async fn a_container_gets_what_it_is_configured_with() {
    with(async |fixture: Fixture| {
        let docker = &fixture.docker;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "mounted").unwrap();
        let mut sandbox = fixture.sandbox_config("web");
        sandbox.sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "7".to_owned());
        let sandbox = docker.run_sandbox(&sandbox).await.unwrap();
        let script = "echo $A $B; id -u; id -g; id -G; cat /data/file; echo; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; \
             echo $HOSTNAME; echo x >/data/new || echo read-only; echo x >/new || echo read-only; cat /proc/self/oom_score_adj; pwd";
        let config = ContainerConfig {
            env: vec![("A".to_owned(), "1".to_owned()), ("B".to_owned(), "a b".to_owned())],
            user: Some(7),
            group: Some(8),
            supplemental_groups: vec![9],
            read_only_root: true,
            working_dir: Some("/bin".to_owned()),
            oom_score_adj: Some(500),
            mounts: vec![Mount {
                host_path: directory.path().into(),
                descriptor: false,
                container_path: "/data".into(),
                read_only: true,
                recursive_read_only: false,
                propagation: Propagation::Private,
            }],
            ..fixture.container_config(&sandbox, "main", script)
        };
        let id = fixture.run(&sandbox, &config).await;
        fixture.exited(&id).await;
        let options = streaming::LogOptions { stream: streaming::LogStream::Stdout, ..Default::default() };
        let log = docker.logs(&id, &options).await.unwrap();
        let log: Vec<_> = log.map(Result::unwrap).collect().await;
        let log = String::from_utf8(log.concat()).unwrap();
        let expect = "1 a b\n7\n8\n8 9\nmounted\n7\nweb\nread-only\nread-only\n500\n/bin\n";
        assert_eq!(log, expect);
    })
    .await;
}

/// The kubelet may retry what it does not know to have happened.
#[tokio::test]
async fn a_leftover_of_the_same_name_gives_way() {
    with(async |fixture: Fixture| {
        let docker = &fixture.docker;
        let sandbox = fixture.sandbox("web").await;
        let config = fixture.container_config(&sandbox, "main", "sleep 1000");
        let first = docker.create_container(&sandbox, &config).await.unwrap();
        let second = docker.create_container(&sandbox, &config).await.unwrap();
        assert_ne!(first, second);
        docker.start_container(&second).await.unwrap();
        let error = docker.create_container(&sandbox, &config).await.unwrap_err();
        assert!(matches!(error, Error::Conflict(_)), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn host_ports_are_mapped_and_their_conflicts_told() {
    with(async |fixture: Fixture| {
        let docker = &fixture.docker;
        // Free a moment ago is as good as it gets: Docker wants a number.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = SandboxConfig {
            ports: vec![PortMapping { host_ip: None, host_port: port, container_port: 80, protocol: Protocol::Tcp }],
            ..fixture.sandbox_config("web")
        };
        docker.run_sandbox(&config).await.unwrap();
        let other = SandboxConfig { pod: fixture.pod("other"), ..config };
        match docker.run_sandbox(&other).await {
            Err(Error::StartFailed { message, .. }) => assert!(message.contains("already allocated"), "{message}"),
            result => panic!("{result:?}"),
        }
        // Nothing of the failed one is left.
        assert_eq!(docker.pods().await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn orphans_are_reaped_in_a_shared_pid_namespace() {
    with(async |fixture: Fixture| {
        let docker = &fixture.docker;
        let config = SandboxConfig { share_process_namespace: true, ..fixture.sandbox_config("web") };
        let sandbox = docker.run_sandbox(&config).await.unwrap();
        // The inner shell ends before its child, which then belongs to PID 1.
        let id = fixture.run_script(&sandbox, "main", "sh -c 'sleep 0.1 & true'; sleep 1000").await;
        eventually(async || {
            let ps = docker
                .exec_sync(&id, vec!["ps".to_owned(), "-o".to_owned(), "pid,stat,comm".to_owned()], MINUTE)
                .await
                .unwrap();
            let text = String::from_utf8(ps.output.to_vec()).unwrap();
            assert!(text.contains("pause"), "{text}");
            // Gone altogether, not a zombie.
            (text.matches("sleep").count() == 1).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn events_tell_what_happens_and_to_whom() {
    with(async |fixture: Fixture| {
        let docker = &fixture.docker;
        let mut events = docker.events();
        let sandbox = fixture.sandbox("web").await;
        let id = fixture.run_script(&sandbox, "main", "exit 7").await;
        fixture.exited(&id).await;
        docker.remove_container(&id).await.unwrap();
        let expect = [
            (&sandbox.id, None, EventKind::Started),
            (&id, Some("main"), EventKind::Started),
            (&id, Some("main"), EventKind::Died { exit_code: 7 }),
            (&id, Some("main"), EventKind::Removed),
        ];
        for (id, container, kind) in expect {
            let event = loop {
                let event = tokio::time::timeout(MINUTE, events.next()).await.unwrap().unwrap().unwrap();
                // Finding out what Docker may do can take a first sandbox that fails.
                if event.id == *id {
                    break event;
                }
            };
            assert_eq!((&event.id, event.container.as_deref(), event.kind), (id, container, kind));
            assert_eq!(event.pod, sandbox.pod);
        }
    })
    .await;
}

#[tokio::test]
async fn statistics_of_a_running_container() {
    with(async |fixture: Fixture| {
        let sandbox = fixture.sandbox("web").await;
        let id = fixture.run_script(&sandbox, "main", "while true; do :; done").await;
        eventually(async || {
            let stats = fixture.docker.stats(&id).await.unwrap();
            (stats.cpu_usage_ns > 0 && stats.pids == 1 && stats.memory_working_set_bytes > 0).then_some(())
        })
        .await;
        let info = fixture.docker.info().await.unwrap();
        assert!(info.cpus > 0 && info.memory_bytes > 0 && info.name == "docker", "{info:?}");
    })
    .await;
}

#[tokio::test]
async fn what_a_container_takes_of_the_disk() {
    with(async |fixture: Fixture| {
        let sandbox = fixture.sandbox("web").await;
        let script = "dd if=/dev/zero of=/file bs=1000000 count=3; sleep 1000";
        let id = fixture.run_script(&sandbox, "main", script).await;
        let usage = eventually(async || {
            let usage = fixture.docker.disk_usage(&id).await.unwrap();
            (usage.writable_layer_bytes >= 3_000_000 && usage.log_bytes > 0).then_some(usage)
        })
        .await;
        assert!(usage.bytes() < 4_000_000, "{usage:?}");
        assert!(matches!(fixture.docker.disk_usage("none").await, Err(Error::NotFound(_))));
    })
    .await;
}

#[tokio::test]
async fn limits_change_while_a_container_runs() {
    with(async |fixture: Fixture| {
        let sandbox = fixture.sandbox("web").await;
        let config = ContainerConfig {
            resources: Resources::from_milli_cpu(None, Some(200), Some(64 << 20)),
            ..fixture.container_config(&sandbox, "main", "sleep 1000")
        };
        let id = fixture.run(&sandbox, &config).await;
        for memory in [128 << 20, 32 << 20] {
            let resources = Resources::from_milli_cpu(None, Some(300), Some(memory));
            fixture.docker.update_container(&id, &resources).await.unwrap();
            let stats = fixture.docker.stats(&id).await.unwrap();
            assert_eq!(stats.memory_limit_bytes, u64::try_from(memory).ok());
        }
        assert!(fixture.docker.container(&id).await.unwrap().unwrap().state.is_running());
    })
    .await;
}

#[tokio::test]
async fn a_fork_bomb_ends_at_its_limit() {
    with(async |fixture: Fixture| {
        let sandbox = fixture.sandbox("web").await;
        let config = ContainerConfig {
            resources: Resources { pids_limit: Some(20), ..Resources::default() },
            ..fixture.container_config(&sandbox, "main", "while true; do sleep 1000 & done")
        };
        let id = fixture.run(&sandbox, &config).await;
        // The shell gives up when it cannot fork any more.
        match fixture.exited(&id).await {
            ContainerState::Exited { exit_code, .. } => assert_ne!(exit_code, 0),
            other => panic!("{other:?}"),
        }
    })
    .await;
}

#[tokio::test]
async fn masks_of_proc_can_be_left_out() {
    with(async |fixture: Fixture| {
        let sandbox = fixture.sandbox("web").await;
        for (name, unmasked_proc, code) in [("masked", false, 0), ("unmasked", true, 1)] {
            // Docker puts a device in its place.
            let config = fixture.container_config(&sandbox, name, "[ -c /proc/keys ]");
            let id = fixture.run(&sandbox, &ContainerConfig { unmasked_proc, ..config }).await;
            match fixture.exited(&id).await {
                ContainerState::Exited { exit_code, .. } => assert_eq!(exit_code, code, "{name}"),
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}

/// What a kubelet without the right to mount does for a `subPath`.
#[tokio::test]
async fn an_open_directory_is_mounted_whatever_its_path_has_become() {
    with(async |fixture: Fixture| {
        let docker = &fixture.docker;
        let directory = tempfile::tempdir().unwrap();
        let part = directory.path().join("part");
        std::fs::create_dir(&part).unwrap();
        std::fs::write(part.join("file"), "mounted").unwrap();
        let open = std::fs::File::open(&part).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&open));
        let sandbox = fixture.sandbox("web").await;
        let config = ContainerConfig {
            mounts: vec![Mount {
                host_path: path.into(),
                descriptor: true,
                container_path: "/data".into(),
                read_only: false,
                recursive_read_only: false,
                propagation: Propagation::Private,
            }],
            ..fixture.container_config(&sandbox, "main", "cat /data/file && echo x >/data/new")
        };
        let id = docker.create_container(&sandbox, &config).await.unwrap();
        std::fs::rename(&part, directory.path().join("moved")).unwrap();
        std::os::unix::fs::symlink("/", &part).unwrap();
        docker.start_container(&id).await.unwrap();
        drop(open);
        let state = fixture.exited(&id).await;
        assert!(matches!(state, ContainerState::Exited { exit_code: 0, .. }), "{state:?}");
        assert!(directory.path().join("moved/new").exists());
        let client = bollard::Docker::connect_with_defaults().unwrap();
        let mounts = client.inspect_container(&id, None).await.unwrap().mounts.unwrap();
        let volume = mounts[0].name.clone().unwrap();
        docker.remove_container(&id).await.unwrap();
        assert!(client.inspect_volume(&volume).await.is_err(), "the volume is left");
    })
    .await;
}
