// A visit by the AWS SDK for Java 2: an event, the answer that it changes, a ranking, errors and lists.
import java.time.Instant;
import software.amazon.awssdk.services.personalize.PersonalizeClient;
import software.amazon.awssdk.services.personalizeevents.PersonalizeEventsClient;
import software.amazon.awssdk.services.personalizeevents.model.Event;
import software.amazon.awssdk.services.personalizeruntime.PersonalizeRuntimeClient;
import software.amazon.awssdk.services.personalizeruntime.model.ResourceNotFoundException;

public class Visit {
  public static void main(String[] names) {
    String user = names[0], first = names[1], second = names[2];
    try (var events = PersonalizeEventsClient.create();
        var runtime = PersonalizeRuntimeClient.create();
        var personalize = PersonalizeClient.create()) {
      var event = Event.builder().eventType("click").itemId(first).sentAt(Instant.now()).build();
      events.putEvents(put -> put.trackingId("shop").userId(user).sessionId(user).eventList(event));
      String next = "";
      long deadline = System.nanoTime() + 60_000_000_000L;
      while (!next.equals(second) && System.nanoTime() < deadline) {
        var answer = runtime.getRecommendations(ask -> ask.campaignArn(names[3]).userId(user));
        next = answer.itemList().get(0).itemId();
      }
      String ranked = runtime
          .getPersonalizedRanking(ask -> ask.campaignArn(names[4]).userId(user).inputList("zz", second, first))
          .personalizedRanking().get(0).itemId();
      String missing = "", invalid = "";
      try {
        runtime.getRecommendations(ask -> ask.campaignArn(names[5]).userId(user));
      } catch (ResourceNotFoundException error) {
        missing = error.awsErrorDetails().errorCode();
      }
      try {
        personalize.createSchema(make -> make.name("!").schema("{}"));
      } catch (software.amazon.awssdk.services.personalize.model.InvalidInputException error) {
        invalid = error.awsErrorDetails().errorCode();
      }
      long solutions = personalize.listSolutionsPaginator(list -> list.maxResults(1)).solutions().stream().count();
      long campaigns = personalize.listCampaignsPaginator(list -> list.maxResults(1)).campaigns().stream().count();
      System.out.printf(
          "{\"next\": \"%s\", \"ranked\": \"%s\", \"missing\": \"%s\", \"invalid\": \"%s\","
              + " \"solutions\": %d, \"campaigns\": %d}%n",
          next, ranked, missing, invalid, solutions, campaigns);
    }
  }
}
