"""Programs that measure speed and quality; results/ holds what they printed."""
