package headway

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	mathrand "math/rand/v2"
	"time"
)

// newID is a UUIDv7 (RFC 9562) as 32 lower-case hexadecimal digits: sorts by time to the millisecond.
func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[6:])
	milliseconds := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint16(id[0:], uint16(milliseconds>>32))
	binary.BigEndian.PutUint32(id[2:], uint32(milliseconds))
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return hex.EncodeToString(id[:])
}

// jitter returns a random duration between low and high times d, so that many clients do not retry at the same moment.
func jitter(d time.Duration, low, high float64) time.Duration {
	return time.Duration(float64(d) * (low + (high-low)*mathrand.Float64()))
}
