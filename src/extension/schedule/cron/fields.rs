//! The fields of a cron expression as sets of bits, and the next minute of the calendar that is in
//! all of them. Time zones are not known here: times are what a wall clock shows.

/// The years that there are.
pub(super) const FIRST_YEAR: i64 = 1970;
pub(super) const LAST_YEAR: i64 = 2100;

const MINUTE: i64 = 60;
const MINUTES_OF_DAY: i64 = 24 * 60;

/// What a wall clock shows at the start of a minute, in seconds since it showed 1970.
pub(super) type WallClock = i64;

/// When each part of the clock matches: bit `n` stands for the number `n`, in `years` for the year
/// `1970 + n`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) minutes: u64,
    pub(super) hours: u64,
    pub(super) days: u64,
    pub(super) months: u64,
    pub(super) weekdays: u64,
    pub(super) years: [u64; 3],
    /// Whether the field of the hour has a number, and is not just `*` or `*/n`.
    pub(super) names_hours: bool,
}

impl Fields {
    /// The first minute that matches and does not begin before `from`.
    pub(super) fn next(&self, from: WallClock) -> Option<WallClock> {
        // The start of a minute, rounded up.
        let minute = from.saturating_add(MINUTE - 1).div_euclid(MINUTE).max(0);
        let (today, minute) = (minute / MINUTES_OF_DAY, minute % MINUTES_OF_DAY);
        let mut day = self.next_day(today)?;
        let mut minute = self.next_minute(if day == today { minute } else { 0 });
        if minute.is_none() {
            day = self.next_day(today + 1)?;
            minute = self.next_minute(0);
        }
        Some((day * MINUTES_OF_DAY + minute?) * MINUTE)
    }

    /// The first minute of a day that matches, from one of them on.
    fn next_minute(&self, from: i64) -> Option<i64> {
        let (hour, minute) = (from / 60, from % 60);
        if let Some(found) = next_bit(self.minutes, minute)
            && next_bit(self.hours, hour) == Some(hour)
        {
            return Some(hour * 60 + found);
        }
        Some(next_bit(self.hours, hour + 1)? * 60 + next_bit(self.minutes, 0)?)
    }

    /// The first day that matches, from one of them on; in days since 1970.
    fn next_day(&self, from: i64) -> Option<i64> {
        let (mut year, mut month, mut day) = date(from)?;
        loop {
            let next = self.next_year(year)?;
            if next > year {
                (year, month, day) = (next, 1, 1);
            }
            // Past the last month there is none.
            let Some(next) = next_bit(self.months, month) else {
                (year, month, day) = (year + 1, 1, 1);
                continue;
            };
            if next > month {
                (month, day) = (next, 1);
            }
            let first = first_day(year, month);
            let days = self.days & on_weekdays(self.weekdays, first) & first_days(year, month);
            if let Some(day) = next_bit(days, day) {
                return Some(first + day - 1);
            }
            (month, day) = (month + 1, 1);
        }
    }

    fn next_year(&self, from: i64) -> Option<i64> {
        let from = from - FIRST_YEAR;
        let in_words = (0..).step_by(64).zip(self.years);
        let mut found = in_words.filter_map(|(base, word)| {
            Some(base + next_bit(word, (from - base).max(0))? + FIRST_YEAR)
        });
        found.next()
    }
}

/// The lowest bit of `set` that is not below `from`.
fn next_bit(set: u64, from: i64) -> Option<i64> {
    let rest = set.checked_shr(u32::try_from(from).ok()?)?;
    (rest != 0).then(|| from + i64::from(rest.trailing_zeros()))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_lengths(year: i64) -> [i64; 12] {
    [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// The days from 1970 to the first day of a year.
fn new_year(year: i64) -> i64 {
    // All years have 365 days, and leap years before them one more: 477 of them before 1970.
    let before = year - 1;
    365 * (year - 1970) + before / 4 - before / 100 + before / 400 - 477
}

/// The days from 1970 to the first day of a month.
fn first_day(year: i64, month: i64) -> i64 {
    let months = (1..month).zip(month_lengths(year));
    new_year(year) + months.map(|(_, length)| length).sum::<i64>()
}

/// Year, month and day of the month; none outside of the years that there are.
fn date(days: i64) -> Option<(i64, i64, i64)> {
    // Too early by one at most, at the end of a year.
    let mut year = FIRST_YEAR + days / 366;
    if new_year(year + 1) <= days {
        year += 1;
    }
    if !(FIRST_YEAR..=LAST_YEAR).contains(&year) {
        return None;
    }
    let mut day = days - new_year(year);
    for (month, length) in (1..).zip(month_lengths(year)) {
        if day < length {
            return Some((year, month, day + 1));
        }
        day -= length;
    }
    None
}

/// The days of a month, as bits.
fn first_days(year: i64, month: i64) -> u64 {
    let length = (1..).zip(month_lengths(year)).find(|(number, _)| *number == month);
    let length = length.map_or(0, |(_, length)| length);
    (1..=length).fold(0, |days, day| days | 1 << day)
}

/// The days of a month, as bits, that are on one of `weekdays`; the month begins `first` days after
/// 1970 did.
fn on_weekdays(weekdays: u64, first: i64) -> u64 {
    // 1970 began on a Thursday. Bit 0 is the first of the month from here on.
    let first = (first + 4).rem_euclid(7);
    let week = (weekdays >> first | weekdays << (7 - first)) & 0x7f;
    (0..5).fold(0, |days, weeks| days | week << (7 * weeks)) << 1
}
