//! The store's own clock: the time known to have passed while events were kept.
//!
//! The wall clock may be wrong: 1970 until the network is there, or a year ahead. So nothing is removed by it. The
//! store's clock goes by the time since boot, also from one run of a boot to the next. It does not know how long a
//! host was off, and does not count that time. It never runs ahead of the truth, and never back.

use rusqlite::{Connection, OptionalExtension as _, params};

/// A reading of the clock at some time since boot, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Age {
    at_ns: u64,
    boottime_ns: u64,
}

impl Age {
    /// Continues with the reading in the store.
    pub(super) fn load(
        connection: &Connection,
        boot_id: &str,
        boottime_ns: u64,
    ) -> Result<Self, rusqlite::Error> {
        let sql = "SELECT ns, boot, boottime_ns FROM age";
        let stored = connection.query_row(sql, [], |row| {
            let (at_ns, boot): (i64, String) = (row.get(0)?, row.get(1)?);
            Ok((at_ns, boot, row.get::<_, i64>(2)?))
        });
        let Some((at_ns, boot, since_ns)) = stored.optional()? else {
            return Ok(Self {
                at_ns: 0,
                boottime_ns,
            });
        };
        let stored = Self {
            at_ns: at_ns.cast_unsigned(),
            boottime_ns: if boot == boot_id {
                since_ns.cast_unsigned()
            } else {
                boottime_ns
            },
        };
        Ok(Self {
            at_ns: stored.now(boottime_ns),
            boottime_ns,
        })
    }

    /// The reading, in nanoseconds since the first event was kept.
    pub(super) fn now(self, boottime_ns: u64) -> u64 {
        let passed = boottime_ns.saturating_sub(self.boottime_ns);
        self.at_ns.saturating_add(passed)
    }

    /// Stores the reading.
    pub(super) fn save(
        self,
        connection: &Connection,
        boot_id: &str,
        boottime_ns: u64,
    ) -> Result<(), rusqlite::Error> {
        let sql = "INSERT OR REPLACE INTO age (one, ns, boot, boottime_ns) VALUES (1, ?1, ?2, ?3)";
        let now_ns = self.now(boottime_ns).cast_signed();
        connection.execute(sql, params![now_ns, boot_id, boottime_ns.cast_signed()])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema::{MIGRATIONS, migrate};

    #[test]
    fn it_goes_on_within_a_boot_and_stands_while_the_host_is_off() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        let first = Age::load(&connection, "a", 1000).unwrap();
        assert_eq!(first.now(1500), 500);
        first.save(&connection, "a", 1500).unwrap();
        // Another run of the same boot: it was kept meanwhile.
        let second = Age::load(&connection, "a", 1800).unwrap();
        assert_eq!(second.now(1900), 900);
        second.save(&connection, "a", 1900).unwrap();
        // Another boot: nobody knows how much later.
        let third = Age::load(&connection, "b", 50).unwrap();
        assert_eq!(third.now(50), 900);
        assert_eq!(third.now(150), 1000);
        assert_eq!(third.now(0), 900, "never back");
    }
}
