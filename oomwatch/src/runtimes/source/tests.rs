use super::*;

/// Ends its connection `left` times, then reports that nobody listens.
struct Failing {
    left: u32,
}

impl RuntimeSource for Failing {
    fn api(&self) -> RuntimeApi {
        RuntimeApi::Docker
    }

    fn socket(&self) -> &Path {
        Path::new("/run/test.sock")
    }

    fn follow<'a>(
        &'a mut self,
        sightings: &'a Sightings,
        _wanted: &'a mut Wanted,
    ) -> FollowFuture<'a> {
        Box::pin(async {
            sightings
                .by(Speaker::host())
                .listed(Listing::default())
                .await?;
            self.left = self.left.checked_sub(1).ok_or(SourceError::Stopped)?;
            Err(SourceError::Closed)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_runtime_is_listed_again() {
    let (sender, mut receiver) = mpsc::channel(SIGHTING_QUEUE);
    let hierarchy = Arc::new(Hierarchy::at("/nowhere"));
    let sightings = Sightings::new(RuntimeApi::Docker, hierarchy, sender);
    drive(
        Box::new(Failing { left: 2 }),
        sightings,
        Wanted::channel().1,
    )
    .await;
    let mut told = Vec::new();
    while let Ok(sighting) = receiver.try_recv() {
        told.push(sighting);
    }
    let api = RuntimeApi::Docker;
    let listed = Sighting::Listed {
        api,
        keys: Vec::new(),
    };
    let lost = Sighting::Lost { api };
    assert_eq!(
        told,
        [&listed, &lost, &listed, &lost, &listed].map(Clone::clone)
    );
}

#[tokio::test]
async fn a_source_ends_with_the_watcher() {
    let (sender, receiver) = mpsc::channel(1);
    drop(receiver);
    let hierarchy = Arc::new(Hierarchy::at("/nowhere"));
    let sightings = Sightings::new(RuntimeApi::Docker, hierarchy, sender);
    drive(
        Box::new(Failing { left: 9 }),
        sightings,
        Wanted::channel().1,
    )
    .await;
}

#[test]
fn the_causes_of_an_error_are_told_in_a_line() {
    let refused = std::io::Error::other("refused\n");
    let error = SourceError::Connect(Box::new(refused));
    assert_eq!(causes(&error), r"refused\x0a");
}
