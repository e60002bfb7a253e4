//! What limits and timeouts may be.
#![allow(clippy::unwrap_used)]

use tonic::Code;

use super::*;

#[test]
fn without_options_there_are_the_defaults() {
    let none = ExtensionOptions::default();
    let limits = ContainerLimits { memory: 512 << 20, processes: 512, writable_root: false };
    assert_eq!(ContainerLimits::new(&none).unwrap(), limits);
    assert_eq!(ContainerLimits::restore(&none), limits);
    let [start, call, stop] = [30, 30, 10].map(Duration::from_secs);
    assert_eq!(Timeouts::new(&none).unwrap(), Timeouts { start, call, stop });
    assert_eq!(Timeouts::restore(&none), Timeouts { start, call, stop });
}

#[test]
fn values_that_make_no_sense_are_refused_by_name_with_what_would() {
    type Set = fn(&mut ExtensionOptions, i64);
    let numbers: [(&str, Set, [i64; 2], &str); 5] = [
        ("memory", |it, value| it.memory = Some(value), [8 << 20, 1 << 40], "from 8MiB to 1TiB"),
        ("processes", |it, value| it.processes = Some(value), [1, 65_536], "from 1 to 65536"),
        (
            "start_timeout",
            |it, value| it.start_timeout = Some(value),
            [100, 600_000],
            "from 100ms to 10m0s",
        ),
        (
            "call_timeout",
            |it, value| it.call_timeout = Some(value),
            [100, 600_000],
            "from 100ms to 10m0s",
        ),
        (
            "stop_timeout",
            |it, value| it.stop_timeout = Some(value),
            [100, 600_000],
            "from 100ms to 10m0s",
        ),
    ];
    for (name, set, [least, most], range) in numbers {
        let checked = |value| {
            let mut options = ExtensionOptions::default();
            set(&mut options, value);
            let checked = ContainerLimits::new(&options).map(drop);
            (checked.and(Timeouts::new(&options).map(drop)), options)
        };
        for value in [least, most] {
            checked(value).0.unwrap();
        }
        for value in [i64::MIN, -1, 0, least - 1, most + 1, i64::MAX] {
            let (refused, options) = checked(value);
            let refused = refused.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert_eq!(refused.message(), format!("`{name}` must be {range}"), "{value}");
            // What another version accepted is brought into range.
            let (limits, timeouts) =
                (ContainerLimits::restore(&options), Timeouts::restore(&options));
            assert!((8 << 20..=1 << 40).contains(&limits.memory), "{limits:?}");
            assert!((1..=65_536).contains(&limits.processes), "{limits:?}");
            for it in [timeouts.start, timeouts.call, timeouts.stop] {
                assert!((Duration::from_millis(100)..=LONGEST_TIMEOUT).contains(&it), "{it:?}");
            }
        }
    }
}

#[test]
fn limits_are_for_containers_and_timeouts_for_all() {
    let some = ExtensionOptions { call_timeout: Some(1000), ..Default::default() };
    for image in ["exec:interval", "in-process:Interval", "interval:1"] {
        ContainerLimits::check_image(&some, image).unwrap();
    }
    for (name, options) in [
        ("memory", ExtensionOptions { memory: Some(8 << 20), ..Default::default() }),
        ("processes", ExtensionOptions { processes: Some(1), ..Default::default() }),
        ("writable_root", ExtensionOptions { writable_root: Some(false), ..Default::default() }),
    ] {
        ContainerLimits::check_image(&options, "interval:1").unwrap();
        for image in ["exec:interval", "in-process:Interval"] {
            let refused = ContainerLimits::check_image(&options, image).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().starts_with(&format!("`{name}` ")), "{refused}");
        }
    }
}
