package checkpoint

// CheckInside refuses a file of the checkpoint's folder that is a link to nothing or to somewhere else, as shards are
// refused: what a downloaded folder points to on this machine is not its own.
func (s *Source) CheckInside(name string) error { return checkInside(s.dir, name) }
