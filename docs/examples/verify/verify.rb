# Verifies a delivery of batchd with Ruby's standard library (2.7 or newer).
#
# Usage: ruby verify.rb WEBHOOK-ID WEBHOOK-TIMESTAMP WEBHOOK-SIGNATURE < BODY

require "json"
require "openssl"

KEY = ENV.fetch("BATCHD_WEBHOOK_SECRET").delete_prefix("whsec_").unpack1("m")
TOLERANCE = 300 # seconds

# The event; raises ArgumentError. `body` has the bytes as they came: `request.raw_post` in Rails.
def verified(headers, body)
  id, timestamp = headers.values_at("webhook-id", "webhook-timestamp")
  if (Time.now.to_i - Integer(timestamp)).abs > TOLERANCE
    raise ArgumentError, "the timestamp is too old, or a clock is wrong"
  end

  expected = [OpenSSL::HMAC.digest("SHA256", KEY, "#{id}.#{timestamp}.".b + body)].pack("m0")
  matches = headers["webhook-signature"].split.any? do |item|
    version, signature = item.split(",", 2)
    version == "v1" && OpenSSL.secure_compare(signature.to_s, expected)
  end
  raise ArgumentError, "no signature matches" unless matches

  JSON.parse(body.force_encoding("UTF-8"))
end

begin
  names = %w[webhook-id webhook-timestamp webhook-signature]
  event = verified(names.zip(ARGV).to_h, $stdin.binmode.read)
  puts "#{event["type"]} #{event["data"]["id"]}"
rescue ArgumentError => e
  abort "refused: #{e.message}"
end
