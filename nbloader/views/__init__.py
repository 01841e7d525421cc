"""Views: functions of a `JobState`. A view starts nothing and decides nothing."""
