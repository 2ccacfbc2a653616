"""Print when Fennock Light is switched on and off.

The settings are in lamp.toml, beside this file. Without an argument the schedule starts today:

    python lamp_schedule.py
    python lamp_schedule.py 2024-07-01

The times are correct to about two minutes, which is good enough for a lamp.
"""

import math
import sys
import tomllib
from datetime import date, datetime, time, timedelta
from pathlib import Path

SETTINGS = Path(__file__).with_name("lamp.toml")
SUNSET_ANGLE = -0.833
"""Height of the centre of the sun at sunset, in degrees: the air bends the light, and the sun is a disc."""


def sun_declination(day: date) -> float:
    """Angle between the sun and the equator in degrees; 23.44 at midsummer."""
    day_of_year = day.timetuple().tm_yday
    return 23.44 * math.sin(math.radians(360 / 365.24 * (day_of_year - 81)))


def equation_of_time(day: date) -> float:
    """Minutes by which a sundial is ahead of a clock."""
    angle = math.radians(360 / 365.24 * (day.timetuple().tm_yday - 81))
    return 9.87 * math.sin(2 * angle) - 7.53 * math.cos(angle) - 1.5 * math.sin(angle)


def half_day(day: date, latitude: float) -> timedelta:
    """Time from noon to sunset."""
    declination = math.radians(sun_declination(day))
    height = math.sin(math.radians(SUNSET_ANGLE)) - math.sin(math.radians(latitude)) * math.sin(declination)
    cosine = height / (math.cos(math.radians(latitude)) * math.cos(declination))
    return timedelta(hours=math.degrees(math.acos(max(-1.0, min(1.0, cosine)))) / 15)


def last_sunday(year: int, month: int) -> date:
    """The last Sunday of March or October, when the island clock changes."""
    day = date(year, month, 31)
    return day - timedelta(days=(day.weekday() + 1) % 7)


def is_summer_time(day: date) -> bool:
    """Summer time lasts from the last Sunday of March to the last Sunday of October."""
    return last_sunday(day.year, 3) <= day < last_sunday(day.year, 10)


def noon(day: date, settings: dict) -> datetime:
    """The moment when the sun is highest, on the island clock."""
    minutes = -4 * settings["place"]["longitude"] - equation_of_time(day)
    hours = settings["clock"]["utc_offset_hours"]
    if settings["clock"]["summer_time"] and is_summer_time(day):
        hours += 1
    return datetime.combine(day, time(12)) + timedelta(hours=hours, minutes=minutes)


def lamp_times(day: date, settings: dict) -> tuple[datetime, datetime]:
    """When the lamp goes off in the morning and on in the evening."""
    middle, half = noon(day, settings), half_day(day, settings["place"]["latitude"])
    off = middle - half + timedelta(minutes=settings["lamp"]["minutes_after_sunrise"])
    on = middle + half - timedelta(minutes=settings["lamp"]["minutes_before_sunset"])
    return off, on


def main() -> None:
    settings = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    first = date.fromisoformat(sys.argv[1]) if len(sys.argv) > 1 else date.today()
    print(f"{settings['place']['name']}: lamp schedule")
    for number in range(settings["report"]["days"]):
        day = first + timedelta(days=number)
        off, on = lamp_times(day, settings)
        print(f"{day:%a %d %b %Y}   off {off:%H:%M}   on {on:%H:%M}")


if __name__ == "__main__":
    main()
