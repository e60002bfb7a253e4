//! Another reading of cron expressions, as plain as can be, and the days in order. The
//! implementation shares nothing with it.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone as JiffZone;

use super::*;

/// The lowest and the highest number of each field.
const BOUNDS: [(usize, usize); 6] = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6), (1970, 2100)];

/// Which numbers match, for each field.
pub(super) struct Plain {
    matching: Vec<Vec<bool>>,
    pub(super) names_hours: bool,
}

impl Plain {
    pub(super) fn new(expression: &str) -> Self {
        let fields: Vec<&str> = expression.split(' ').collect();
        let of_field = |(field, (least, most)): (&&str, (usize, usize))| {
            let mut matching = vec![false; most + 1];
            for part in field.split(',') {
                let (range, step) = part.split_once('/').unwrap_or((part, "1"));
                let step: usize = step.parse().unwrap();
                let (first, last) = match range.split_once('-') {
                    Some((first, last)) => (first.parse().unwrap(), last.parse().unwrap()),
                    None if range == "*" => (least, most),
                    None => (range.parse().unwrap(), range.parse().unwrap()),
                };
                for number in (first..=last).step_by(step) {
                    matching[number] = true;
                }
            }
            matching
        };
        let is_all = |part: &str| part == "*" || part.starts_with("*/");
        Self {
            matching: fields.iter().zip(BOUNDS).map(of_field).collect(),
            names_hours: !fields[1].split(',').all(is_all),
        }
    }

    fn has(&self, field: usize, number: usize) -> bool {
        self.matching[field].get(number).is_some_and(|matches| *matches)
    }

    /// Minute, hour, day, month, day of the week, year.
    pub(super) fn matches(&self, clock: [usize; 6]) -> bool {
        (0..6).all(|field| self.has(field, clock[field]))
    }

    fn has_day(&self, date: Date) -> bool {
        self.has(5, date.year)
            && self.has(3, date.month)
            && self.has(2, date.day)
            && self.has(4, date.weekday)
    }

    /// The first minute of a day that matches, in minutes.
    fn minute_from(&self, from: usize) -> Option<usize> {
        (from..24 * 60).find(|minute| self.has(1, minute / 60) && self.has(0, minute % 60))
    }
}

/// What a clock shows.
pub(super) fn shown(clock: DateTime) -> [usize; 6] {
    let weekday = clock.weekday().to_sunday_zero_offset();
    let small = [clock.minute(), clock.hour(), clock.day(), clock.month(), weekday];
    let [minute, hour, day, month, weekday] = small.map(|number| usize::try_from(number).unwrap());
    [minute, hour, day, month, weekday, usize::try_from(clock.year()).unwrap()]
}

#[derive(Clone, Copy)]
struct Date {
    year: usize,
    month: usize,
    day: usize,
    weekday: usize,
}

impl Date {
    fn next(self) -> Self {
        let Self { year, month, day, weekday } = self;
        let weekday = (weekday + 1) % 7;
        let leap = year % 4 == 0 && year != 2100;
        let length = match month {
            2 => 28 + usize::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        match (month, day) {
            (12, 31) => Self { year: year + 1, month: 1, day: 1, weekday },
            _ if day == length => Self { month: month + 1, day: 1, weekday, ..self },
            _ => Self { day: day + 1, weekday, ..self },
        }
    }
}

/// An expression of any kind; often with a rare day.
pub(super) fn any_expression(random: &mut fastrand::Rng) -> String {
    let field = |(least, most): (usize, usize)| {
        let parts = [1, 1, 1, 1, 2, 3][random.usize(..6)];
        let mut part = |_| {
            let (one, other) = (random.usize(least..=most), random.usize(least..=most));
            let (first, last) = (one.min(other), one.max(other));
            let step = random.usize(1..=(most - least).min(20));
            match random.usize(..14) {
                0..8 => "*".to_owned(),
                8 => format!("*/{step}"),
                9 => format!("{first}-{last}"),
                10 => format!("{first}-{last}/{step}"),
                _ => format!("{one}"),
            }
        };
        (0..parts).map(&mut part).collect::<Vec<_>>().join(",")
    };
    BOUNDS.map(field).join(" ")
}

/// 100,000 times: five for each of 20,000 expressions.
#[test]
fn is_as_the_days_in_order() {
    let mut random = fastrand::Rng::with_seed(1);
    let (mut refused, mut given_up, mut never) = (0, 0, 0);
    for n in 0..20_000 {
        let expression = any_expression(&mut random);
        let plain = Plain::new(&expression);
        let Ok(cron) = Cron::new(&expression) else {
            refused += 1;
            if refused % 4 == 0 {
                assert_eq!(first_after(&plain, -1, usize::MAX), Ok(None), "{expression}");
            }
            continue;
        };
        assert_eq!(cron.to_string().parse(), Ok(cron.clone()), "{expression}");
        for _ in 0..5 {
            let time = random.i64(-10..4_133_980_800); // until 2101
            let next = cron.next_second_after(time);
            // A few are followed to the end.
            match first_after(&plain, time, if n % 1000 == 0 { usize::MAX } else { 100 }) {
                Ok(first) => {
                    never += usize::from(first.is_none());
                    assert_eq!(next, first, "{expression} after {time}");
                }
                Err(until) => {
                    given_up += 1;
                    assert!(next.is_none_or(|next| next >= until), "{expression} after {time}");
                }
            }
            if let Some(next) = next {
                let next = Timestamp::from_second(next).unwrap();
                let clock = JiffZone::UTC.to_datetime(next);
                assert!(plain.matches(shown(clock)) && clock.second() == 0, "{expression}: {next}");
            }
        }
    }
    // Some of each kind, and most are followed as far as it takes.
    let counts = format!("{refused} refused, {given_up} given up, {never} never again");
    assert!(refused > 20 && given_up < 45_000 && never > 50, "{counts}");
}

/// The first second after `time` that matches, if there is one, or the end of the days that were
/// tried.
fn first_after(plain: &Plain, time: i64, days: usize) -> Result<Option<i64>, i64> {
    let start = time.div_euclid(60) * 60 + 60;
    let clock = JiffZone::UTC.to_datetime(Timestamp::from_second(start).unwrap());
    let [minute, hour, day, month, weekday, year] = shown(clock);
    let mut date = Date { year, month, day, weekday };
    let mut midnight = start - 60 * i64::try_from(hour * 60 + minute).unwrap();
    let mut from = hour * 60 + minute;
    for _ in 0..days {
        if date.year > 2100 {
            return Ok(None);
        }
        if plain.has_day(date)
            && let Some(minute) = plain.minute_from(from)
        {
            return Ok(Some(midnight + 60 * i64::try_from(minute).unwrap()));
        }
        (date, midnight, from) = (date.next(), midnight + 24 * 60 * 60, 0);
    }
    Err(midnight)
}
