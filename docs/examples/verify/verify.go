// Verifies a delivery of batchd with Go's standard library.
//
// Usage: go run verify.go WEBHOOK-ID WEBHOOK-TIMESTAMP WEBHOOK-SIGNATURE < BODY
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const tolerance = 5 * time.Minute

// Event holds what the example prints; the body has much more.
type Event struct {
	Type string `json:"type"`
	Data struct {
		ID string `json:"id"`
	} `json:"data"`
}

// Verified returns the event, or an error if it is not batchd's.
func Verified(secret string, headers http.Header, body []byte) (*Event, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return nil, err
	}
	id, timestamp := headers.Get("webhook-id"), headers.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return nil, err
	}
	if age := time.Since(time.Unix(seconds, 0)); age > tolerance || age < -tolerance {
		return nil, errors.New("the timestamp is too old, or a clock is wrong")
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	mac.Write(body)
	expected := mac.Sum(nil)
	for _, item := range strings.Fields(headers.Get("webhook-signature")) {
		version, signature, _ := strings.Cut(item, ",")
		given, err := base64.StdEncoding.DecodeString(signature)
		if version == "v1" && err == nil && hmac.Equal(given, expected) {
			event := new(Event)
			return event, json.Unmarshal(body, event)
		}
	}
	return nil, errors.New("no signature matches")
}

func main() {
	headers := http.Header{}
	for i, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
		headers.Set(name, os.Args[i+1])
	}
	body, err := io.ReadAll(os.Stdin)
	if err == nil {
		var event *Event
		if event, err = Verified(os.Getenv("BATCHD_WEBHOOK_SECRET"), headers, body); err == nil {
			fmt.Println(event.Type, event.Data.ID)
			return
		}
	}
	fmt.Fprintln(os.Stderr, "refused:", err)
	os.Exit(1)
}
